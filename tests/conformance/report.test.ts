import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { parseOptions } from './arguments.ts';
import { readJunit } from './junit.ts';
import { conformancePage, resultLines, summaryLine, unexplained } from './report.ts';

const REPORT = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="6" disabled="0" errors="0" failures="1" time="9">
<testsuite name="CRI validation">
<testcase name="[BeforeSuite]" classname="x" status="passed" time="0.1"></testcase>
<testcase name="[It] [k8s.io] Pods &amp; more should run" classname="x" status="passed" time="1.5"/>
<testcase name="[It] [k8s.io] AppArmor should work" classname="x" status="skipped" time="0">
  <skipped message="skipped - AppArmor is not enabled"></skipped></testcase>
<testcase name="[It] [k8s.io] Container runtime should support MaskedPaths" classname="x" status="failed" time="2">
  <failure message="Expected an error&#xA; to have occurred. Unexpected error: {x}" type="failed">stack</failure></testcase>
<testcase name="[It] [k8s.io] benchmark about start" classname="x" status="skipped" time="0">
  <skipped message="skipped"></skipped></testcase>
<testcase name="[It] [k8s.io] Pods should not panic" classname="x" status="panicked" time="0">
  <error message="boom" type="panicked"></error></testcase>
</testsuite>
</testsuites>`;

describe("a report of critest's", () => {
  it('gives each spec its outcome and one line of reason, without what a filter left out', () => {
    assert.deepEqual(readJunit(REPORT), [
      outcome('AppArmor should work', 'skipped', 0, 'skipped - AppArmor is not enabled'),
      outcome(
        'Container runtime should support MaskedPaths',
        'failed',
        2,
        'Expected an error to have occurred.',
      ),
      outcome('Pods & more should run', 'passed', 1.5, ''),
      outcome('Pods should not panic', 'failed', 0, 'boom'),
    ]);
    assert.throws(() => readJunit('no report'), /no JUnit report/);
  });

  it('is printed with every name, and a failure that nothing explains stands out', () => {
    const results = readJunit(REPORT);
    const gvisor = { handler: 'gvisor', results } as const;
    assert.deepEqual(resultLines(gvisor), [
      'passed   Pods & more should run',
      'failed   Container runtime should support MaskedPaths: runsc ignores masked paths.',
      'failed   Pods should not panic: boom',
      "skipped  AppArmor should work: AppArmor isn't in the kernel of this host.",
      'gvisor: 1 passed, 2 failed, 1 skipped',
    ]);
    const unexplainedNames = (handler: 'runc' | 'gvisor') =>
      unexplained({ handler, results }).map(({ name }) => name);
    assert.deepEqual(unexplainedNames('gvisor'), ['Pods should not panic']);
    assert.equal(unexplainedNames('runc').length, 2, 'a limit of runsc is none of runc');
    assert.equal(summaryLine({ handler: 'runc', results }), 'runc: 1 passed, 2 failed, 1 skipped');
  });

  it('becomes a page with a row for every spec, and the bare command of each limit', () => {
    const results = readJunit(REPORT);
    const page = conformancePage([{ handler: 'gvisor', results }], {
      kernel: '6.1.0',
      cgroups: 'cgroup v2',
      engines: { runc: '', crun: '', gvisor: 'runsc version 1' },
    });
    assert.match(page, /\| gvisor \| runsc version 1 \| 1 \| 2 \| 1 \|/);
    assert.match(
      page,
      /MaskedPaths \| failed \| runsc ignores masked paths\. \| `runsc run BUNDLE/,
    );
    assert.match(page, /\| Pods & more should run \| passed \|/);
  });
});

describe("the conformance run's options", () => {
  it('are all handlers, serially and once, unless something else is said', () => {
    assert.deepEqual(parseOptions([]), {
      handlers: ['runc', 'crun', 'gvisor'],
      parallel: 1,
      websocket: false,
      runs: 1,
      focus: '',
      writeDocs: false,
      keep: undefined,
    });
    assert.deepEqual(parseOptions(['crun', 'crun', '--runs', '5']).handlers, ['crun']);
  });

  it('that make no sense are refused by their name', () => {
    for (const [args, message] of [
      [['kata'], /no handler "kata"/],
      [['--parallel', '0'], /--parallel 0: 1 to 16/],
      [['--runs', 'x'], /--runs x/],
      [['runc', '--write-docs'], /every handler/],
      [['--nonsense'], /nonsense/],
    ] as const) {
      assert.throws(() => parseOptions(args), message);
    }
  });
});

function outcome(name: string, result: string, seconds: number, message: string) {
  return { name, outcome: result, seconds, message };
}
