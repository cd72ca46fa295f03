// The specs that recorded requests of a kubelet lead to, and tables of what is refused or lowered.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { describe, it } from 'mocha';
import { buildContainerSpec } from './build-spec.ts';
import { execProcess } from './process.ts';
import type { SpecSyscallRule } from './spec.ts';
import {
  type CaseInput,
  CRAMPED_HOST,
  check,
  HOST,
  recordedContainer,
  specInput,
  table,
} from './spec-cases.ts';

const SAMPLES = readdirSync(new URL('./fixtures', import.meta.url))
  .filter((name) => name.startsWith('CreateContainer'))
  .sort();

describe('buildContainerSpec', () => {
  it('has samples to build from', () => assert.ok(SAMPLES.length >= 15, `${SAMPLES.length}`));

  for (const name of SAMPLES) {
    it(`builds ${name}`, () => {
      const built = buildContainerSpec(recordedContainer(name, HOST));
      check(name.replace('.json', ''), built);
      assert.deepEqual(JSON.parse(JSON.stringify(built.spec)), built.spec);
    });
  }

  it('says what it lowered on a host with less', () => {
    const names = ['CreateContainer-rc.json', 'CreateContainer-priv.json'];
    const built = names.map((name) => buildContainerSpec(recordedContainer(name, CRAMPED_HOST)));
    check(
      'cramped-host',
      built.map(({ spec, notes }) => ({
        notes,
        oomScoreAdj: spec.process.oomScoreAdj,
        resources: spec.linux.resources,
        namespaces: spec.linux.namespaces,
        bounding: spec.process.capabilities.bounding,
      })),
    );
  });

  it('runs what command, args, Entrypoint and Cmd say', () => {
    const image = { Entrypoint: ['/entry', '-e'], Cmd: ['image-arg'] };
    table(
      'args',
      {
        'image alone': { image },
        args: { image, container: { args: ['arg'] } },
        'command drops Cmd': { image, container: { command: ['run'] } },
        'command and args': { image, container: { command: ['run'], args: ['arg'] } },
        'Entrypoint taken away': { image: { Entrypoint: [''], Cmd: ['image-arg'] } },
        'Entrypoint taken away, args': {
          image: { Entrypoint: [''], Cmd: ['image-arg'] },
          container: { args: ['arg'] },
        },
        'Entrypoint taken away, nothing': { image: { Entrypoint: [''], Cmd: [] } },
        'empty program of the image': { image: { Entrypoint: ['', '-e'] } },
        nothing: { image: { Cmd: [] } },
        'empty program': { container: { command: [''] } },
        'NUL in an argument': { container: { command: ['a', 'b\0c'] } },
      },
      ({ spec }) => spec.process.args,
    );
  });

  it('sets environment and working directory', () => {
    const env = (key: string, value: string | Uint8Array) => ({
      envs: [{ key, value: Buffer.from(value) }],
    });
    const keep = ({ spec }: ReturnType<typeof buildContainerSpec>) => ({
      env: spec.process.env,
      cwd: spec.process.cwd,
      terminal: spec.process.terminal,
    });
    table(
      'environment',
      {
        'default path': { image: { Env: [] } },
        'terminal, overridden': { container: { tty: true, ...env('FROM_IMAGE', 'no=more') } },
        'own TERM': { container: { tty: true, ...env('TERM', 'dumb') } },
        'UTF-8 with a byte order mark': { container: env('A', '\ufeffä\n') },
        'not UTF-8': { container: env('A', new Uint8Array([0x66, 0xff])) },
        'NUL in a value': { container: env('A', 'a\0b') },
        'no name': { container: env('', 'x') },
        'name with =': { container: env('A=B', 'x') },
        'directory of the image': { image: { WorkingDir: 'srv/../data/' } },
        'directory of the request': { container: { workingDir: '/a//b' } },
        'relative directory': { container: { workingDir: 'a' } },
      },
      keep,
    );
  });

  it('resolves users and groups', () => {
    const user = (value: bigint, more: CaseInput['security'] = {}) => ({
      security: { runAsUser: { value }, ...more },
    });
    table(
      'users',
      {
        'nobody says': {},
        'uid in passwd': user(1000n),
        'uid not in passwd': user(1234n),
        'uid and gid': user(1000n, { runAsGroup: { value: 3000n } }),
        merge: user(1000n, { supplementalGroups: [4000n, 10n] }),
        strict: user(1000n, { supplementalGroups: [4000n], supplementalGroupsPolicy: 1 }),
        'name of the request': { security: { runAsUsername: 'web' } },
        'name of digits of the request': { security: { runAsUsername: '7' } },
        'uid as the name of the request': { security: { runAsUsername: '1000' } },
        'unknown uid as the name of the request': { security: { runAsUsername: '8' } },
        'uid before name': user(1234n, { runAsUsername: 'web' }),
        'name of the image': { image: { User: 'web' } },
        'name and group of the image': { image: { User: 'web:media' } },
        'uid and gid of the image': { image: { User: '55:66' } },
        'uid over the image': { image: { User: 'web:media' }, ...user(55n) },
        'a name of digits is a uid': { image: { User: '7' } },
        'unknown name of the request': { security: { runAsUsername: 'nobody' } },
        'unknown name of the image': { image: { User: 'nobody' } },
        'unknown group of the image': { image: { User: 'web:nobody' } },
        'group without user': { security: { runAsGroup: { value: 1n } }, image: { User: 'web' } },
        'unknown policy': user(1n, { supplementalGroupsPolicy: 7 as 0 }),
        'not mapped': { namespaces: { user: '/run/pins/user' }, ...user(70000n) },
        negative: user(-1n),
        'too large': user(4294967295n),
        'supplemental too large': { security: { supplementalGroups: [2n ** 40n] } },
      },
      ({ spec, user: status }) => ({ spec: spec.process.user, status: status.linux }),
    );
  });

  it('gives capabilities', () => {
    const host = { capabilities: CRAMPED_HOST.capabilities };
    const sets = (addCapabilities: string[], dropCapabilities: string[], more: object = {}) => ({
      host,
      security: { capabilities: { addCapabilities, dropCapabilities }, ...more },
    });
    table(
      'capabilities',
      {
        default: {},
        'add and drop': sets(['NET_ADMIN', 'cap_sys_time'], ['CHOWN', 'CAP_KILL']),
        'drop ALL, add one': sets(['NET_ADMIN'], ['all']),
        'add ALL': sets(['ALL'], []),
        'add ALL, drop one': sets(['ALL'], ['SYS_ADMIN']),
        'not this host’s': sets(['SYS_RESOURCE'], []),
        'drop what isn’t there': sets([], ['SYS_RESOURCE']),
        unknown: sets(['FLY'], []),
        'unknown to drop': sets([], ['FLY']),
        privileged: sets(['SYS_RESOURCE'], ['ALL'], { privileged: true }),
        'default on a poor host': { host: { capabilities: ['CAP_CHOWN'] } },
        ambient: { security: { capabilities: { addAmbientCapabilities: ['NET_BIND_SERVICE'] } } },
      },
      ({ spec, notes }) => {
        const { bounding, effective, permitted, inheritable, ambient } = spec.process.capabilities;
        assert.deepEqual([effective, permitted], [bounding, bounding]);
        return { bounding, inheritable, ambient, notes };
      },
    );
  });

  it('applies security profiles', () => {
    const apparmor = (profileType: 0 | 1 | 2, localhostRef = '') => ({
      apparmor: { profileType, localhostRef },
    });
    const seccomp = (profileType: 0 | 1 | 2, localhostRef = '') => ({
      seccomp: { profileType, localhostRef },
    });
    const armed = { appArmor: true, appArmorDefaultProfile: 'def', appArmorProfiles: ['def', 'p'] };
    const unloaded = { appArmorProfiles: [], appArmorDefaultLacking: 'the parser says no' };
    const without = { handlerWithoutAppArmor: 'gvisor' };
    const labelled = { selinux: true };
    const rules = '{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"x":1}';
    table(
      'security',
      {
        'nothing asked, nothing there': {},
        'default apparmor': { host: armed },
        'default apparmor, privileged': { host: armed, security: { privileged: true } },
        'unconfined apparmor': { host: armed, security: apparmor(1) },
        'local apparmor': { host: armed, security: apparmor(2, 'localhost/p') },
        'local apparmor, old spelling': {
          host: armed,
          security: { apparmorProfile: 'localhost/p' },
        },
        'local apparmor, absent': { host: armed, security: apparmor(2, 'q') },
        'local apparmor, no AppArmor': { security: apparmor(2, 'p') },
        'default apparmor, no AppArmor': { security: apparmor(0) },
        'default apparmor, not loaded': { host: { appArmor: true, ...unloaded } },
        'default apparmor, asked for, not loaded': {
          host: { appArmor: true, ...unloaded },
          security: apparmor(0),
        },
        'default apparmor, old spelling, not loaded': {
          host: { appArmor: true, ...unloaded },
          security: { apparmorProfile: 'runtime/default' },
        },
        'default apparmor, privileged, not loaded': {
          host: { appArmor: true, ...unloaded },
          security: { privileged: true, ...apparmor(0) },
        },
        'default apparmor, handler without': { host: { ...armed, ...without } },
        'default apparmor, asked for, handler without': {
          host: { ...armed, ...without },
          security: apparmor(0),
        },
        'unconfined apparmor, handler without': { host: without, security: apparmor(1) },
        'local apparmor, handler without': {
          host: { ...armed, ...without },
          security: apparmor(2, 'localhost/p'),
        },
        'local apparmor, handler and host without': {
          host: without,
          security: { privileged: true, apparmorProfile: 'localhost/p' },
        },
        'apparmor, odd spelling': { security: { apparmorProfile: 'what' } },
        'local seccomp': { security: seccomp(2, '/p.json'), localhostSeccomp: rules },
        'local seccomp, old spelling': {
          security: { seccompProfilePath: 'localhost//p.json' },
          localhostSeccomp: rules,
        },
        'local seccomp, privileged': { security: { privileged: true, ...seccomp(2, '/p.json') } },
        'local seccomp, absent': { security: seccomp(2, '/p.json') },
        'local seccomp, no JSON': { security: seccomp(2, '/p.json'), localhostSeccomp: 'x' },
        'local seccomp, no rules': {
          security: seccomp(2, '/p.json'),
          localhostSeccomp: '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":"x"}]}',
        },
        'local seccomp, no path': { security: seccomp(2) },
        'path without Localhost': { security: seccomp(0, '/p.json') },
        'seccomp, odd spelling': { security: { seccompProfilePath: 'what' } },
        'seccomp, unknown type': { security: { seccomp: { profileType: 7 as 0 } } },
        'apparmor, unknown type': { security: { apparmor: { profileType: 7 as 0 } } },
        'seccomp, not here': { security: seccomp(0), host: { seccomp: false } },
        unconfined: { security: { seccompProfilePath: 'unconfined' } },
        'no new privileges': { security: { noNewPrivs: true } },
        selinux: { host: labelled },
        'selinux options': {
          host: labelled,
          security: { selinuxOptions: { user: 'u', role: 'r', type: 't', level: 's0:c1,c2' } },
        },
        'selinux options of the sandbox': {
          host: labelled,
          sandbox: { linux: { securityContext: { selinuxOptions: { level: 's0:c1,c2' } } } },
        },
        'selinux options of the sandbox, host PID': {
          host: labelled,
          security: { namespaceOptions: { pid: 2 } },
          sandbox: { linux: { securityContext: { selinuxOptions: { type: 'spc_t' } } } },
        },
        'selinux options of both': {
          host: labelled,
          security: { selinuxOptions: { level: 's0:c3,c4' } },
          sandbox: {
            linux: { securityContext: { selinuxOptions: { type: 'spc_t', level: 's0:c1,c2' } } },
          },
        },
        'selinux, no label': {
          host: labelled,
          security: { selinuxOptions: { user: '', role: '', type: 't",x="', level: '' } },
        },
        'selinux, privileged': { host: labelled, security: { privileged: true } },
        'selinux, host PID': { host: labelled, security: { namespaceOptions: { pid: 2 } } },
        'selinux, host PID of the sandbox': {
          host: labelled,
          sandbox: { linux: { securityContext: { namespaceOptions: { pid: 2 } } } },
        },
        'privileged in an unprivileged sandbox': {
          security: { privileged: true },
          sandbox: { linux: {} },
        },
        'relative masked path': { security: { maskedPaths: ['proc'] } },
      },
      ({ spec, notes }) => ({
        apparmor: spec.process.apparmorProfile,
        selinux: spec.process.selinuxLabel,
        mountLabel: spec.linux.mountLabel,
        seccomp: spec.linux.seccomp,
        noNewPrivileges: spec.process.noNewPrivileges,
        notes,
      }),
    );
  });

  it('filters system calls by default, by both names of it', () => {
    const build = (security: CaseInput['security']) =>
      buildContainerSpec(specInput(security === undefined ? {} : { security })).spec.linux.seccomp;
    const standard = build({ seccomp: { profileType: 0 } });
    check('seccomp-default', standard);
    assert.deepEqual(build({ seccompProfilePath: 'runtime/default' }), standard);
    assert.deepEqual(build({ seccompProfilePath: 'docker/default' }), standard);
    const admin = build({
      seccomp: { profileType: 0 },
      capabilities: { addCapabilities: ['SYS_ADMIN'] },
    });
    const names = (filter: typeof standard) =>
      filter?.syscalls?.flatMap((rule) => rule.names) ?? [];
    assert.ok(names(admin).includes('mount') && !names(standard).includes('mount'));
    assert.ok(!admin?.syscalls?.some((rule) => rule.action === 'SCMP_ACT_ERRNO'));
    for (const filter of [standard, admin]) {
      const families = filter?.syscalls?.filter((rule) => rule.names.includes('socket')) ?? [];
      const asked = [0, 1, 2, 10, 16, 17, 37, 38, 39, 40, 41, 45, 2 ** 32 + 38, 2 ** 32 + 40];
      const opened = asked.filter((family) => families.some((rule) => admits(rule, family)));
      assert.deepEqual(
        opened,
        [0, 1, 2, 10, 16, 17, 37, 39, 41, 45],
        'neither AF_ALG nor AF_VSOCK',
      );
    }
    const always = standard?.syscalls?.[0]?.names ?? [];
    assert.equal(new Set(always).size, always.length, 'a name is listed twice');
  });

  it('knows the signal that stops', () => {
    table(
      'stop-signal',
      {
        default: {},
        'of the image': { image: { StopSignal: 'SIGQUIT' } },
        'number of the image': { image: { StopSignal: '10' } },
        'real-time of the image': { image: { StopSignal: 'SIGRTMIN+3' } },
        'real-time number': { image: { StopSignal: '37' } },
        'no signal': { image: { StopSignal: 'SIGNONE' } },
        'of the request': { image: { StopSignal: 'SIGQUIT' }, container: { stopSignal: 29 } },
        'real-time of the request': { container: { stopSignal: 51 } },
        alias: { container: { stopSignal: 5 } },
      },
      ({ stopSignal, notes }) => [stopSignal, ...notes],
    );
  });

  it('runs an exec session as the container, with a TERM if it has a terminal', () => {
    const { process } = buildContainerSpec(specInput()).spec;
    const session = execProcess(process, { args: ['id'], tty: true });
    assert.deepEqual(session, {
      ...process,
      args: ['id'],
      terminal: true,
      env: [...process.env, 'TERM=xterm'],
    });
    assert.deepEqual(execProcess(session, { args: ['id'], tty: true }).env, session.env);
  });
});

/** As a filter judges the first argument: all of its register. */
function admits({ action, args = [] }: SpecSyscallRule, first: number): boolean {
  const [condition, ...others] = args;
  assert.deepEqual([action, condition?.index, others], ['SCMP_ACT_ALLOW', 0, []]);
  const value = condition?.value ?? Number.NaN;
  return condition?.op === 'SCMP_CMP_LT' ? first < value : first === value;
}
