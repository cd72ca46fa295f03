import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { COMMANDS, parseCommandLine, UsageError, usageText } from './arguments.ts';

describe('the command line', () => {
  it('reads flags, values and operands of a command', () => {
    const up = parseCommandLine(['up', '--root', '/a b', '--detach', '--nats=nats://h:1']);
    assert.equal(up.command, 'up');
    assert.equal(up.root, '/a b');
    assert.deepEqual([...up.flags], ['detach']);
    assert.deepEqual(up.values, { nats: 'nats://h:1' });
    const pull = parseCommandLine(['pull', 'r/x:1', '--root', '/r']);
    assert.deepEqual(pull.operands, ['r/x:1']);
    assert.deepEqual([...parseCommandLine(['ps', '-a']).flags], ['all']);
  });

  it('shows help for no words, --help, and --help after a command', () => {
    for (const words of [[], ['--help'], ['-h'], ['help'], ['up', '--help']]) {
      assert.equal(parseCommandLine(words).command, 'help', words.join(' '));
    }
    assert.equal(parseCommandLine(['--version']).command, 'version');
  });

  it('answers one sentence for everything else', () => {
    const wrong: readonly (readonly [readonly string[], RegExp])[] = [
      [['frobnicate'], /^There is no command "frobnicate"\.$/],
      [['upp'], /^There is no command "upp"; did you mean "up"\?$/],
      [['stauts'], /; did you mean "status"\?$/],
      [['doktor'], /; did you mean "doctor"\?$/],
      [['constructor'], /^There is no command "constructor"\.$/],
      [['up', '--detatch'], /^cribus up: Unknown option '--detatch'\.$/],
      [['up', '--root'], /^cribus up: Option '--root <value>' argument missing\.$/],
      [['up', '--detach=no'], /^cribus up: Option '--detach' does not take an argument\.$/],
      [['down', '--json'], /^cribus down: Unknown option '--json'\.$/],
      [['up', '--root', ''], /^cribus up: option --root is empty\.$/],
      [['pull'], /^cribus pull needs REF\.$/],
      [['pods', 'x'], /^cribus pods takes no argument "x"\.$/],
      [['pull', 'x', 'y'], /^cribus pull takes no argument "y"\.$/],
    ];
    for (const [words, sentence] of wrong) {
      assert.throws(
        () => parseCommandLine(words),
        (error) => error instanceof UsageError && sentence.test(error.message),
        words.join(' '),
      );
    }
  });

  it('describes every command within 100 columns', () => {
    const text = usageText();
    for (const name of Object.keys(COMMANDS))
      assert.match(text, new RegExp(`^  cribus ${name}`, 'm'));
    assert.deepEqual(
      text.split('\n').filter((line) => line.length > 100),
      [],
    );
  });
});
