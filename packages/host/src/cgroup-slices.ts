// Where systemd puts what an engine asks it for: pure, from the names alone.

/** A name as systemd has it for a slice (systemd.slice(5)): parts joined by dashes, `.slice` behind. */
const SLICE = /^[A-Za-z0-9:_.\\]+(?:-[A-Za-z0-9:_.\\]+)*\.slice$/;

/** True for `a.slice` and `a-b.slice`, and the root `-.slice`. */
export function isSliceName(name: string): boolean {
  return name === '-.slice' || SLICE.test(name);
}

/** The cgroup of a slice: `a-b.slice` is `/a.slice/a-b.slice`; empty for the root. */
export function slicePath(slice: string): string {
  if (slice === '-.slice') return '';
  const parts = slice.slice(0, -'.slice'.length).split('-');
  return parts.map((_, index) => `/${parts.slice(0, index + 1).join('-')}.slice`).join('');
}

/**
 * The cgroup, below the hierarchy, of what the OCI runtime was given as cgroupsPath: a path stays, a
 * `slice:prefix:name` is the scope `prefix-name` in its slice (runc, docs/systemd.md).
 */
export function pathOfCgroupsPath(cgroupsPath: string): string {
  if (cgroupsPath.startsWith('/') || cgroupsPath === '') return cgroupsPath;
  const [slice = '', prefix = '', name = ''] = cgroupsPath.split(':');
  return `${slicePath(slice)}/${prefix}-${name}.scope`;
}

/** How cAdvisor's handler for CRI-O tells its containers (cadvisor, container/crio/factory.go). */
export const CADVISOR_PREFIX = 'crio';

/**
 * The name by which cAdvisor sees a container in a cgroup, with either driver: the kubelet reads the id
 * between the last dash and `.scope` only (pkg/kubelet/stats, extractIDFromCgroupPath).
 */
export function cadvisorName(id: string): string {
  return `${CADVISOR_PREFIX}-${id}.scope`;
}

/**
 * The cgroup, below the hierarchy, of a pod by its cgroup parent as CRI has it: a path, or the name of a
 * slice, which the kubelet writes as a path too. Empty where there is none.
 */
export function pathOfParent(parent: string): string {
  const last = parent.split('/').findLast((part) => part !== '') ?? '';
  if (isSliceName(last)) return slicePath(last);
  const parts = parent.split('/').filter((part) => part !== '' && part !== '.');
  return parts.length === 0 || parts.includes('..') ? '' : `/${parts.join('/')}`;
}
