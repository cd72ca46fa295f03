// mount(2) and umount2(2) by direct call: 0.2 ms, where a helper process costs 5.

export interface OverlayMount {
  /** Mounted on. */
  readonly target: string;
  /** All layer names are relative to it: mount(2) takes one page of options, so names are short. */
  readonly layersDirectory: string;
  /** Topmost first; at most 128. */
  readonly layerNames: readonly string[];
  /** Absent for a read-only mount. */
  readonly upper?: string;
  readonly work?: string;
}

/** Mounts an overlay; backslash, colon and comma in paths are escaped. Throws with an errno code. */
export function mountOverlay(_mount: OverlayMount): void {
  throw new Error('not built');
}

export interface BindOptions {
  readonly recursive?: boolean;
  readonly readonly?: boolean;
  readonly propagation?: 'private' | 'slave' | 'shared';
}
/** Bind-mounts `source` on `target` (both must exist). */
export function bindMount(_source: string, _target: string, _options?: BindOptions): void {
  throw new Error('not built');
}

/** Mounts a tmpfs; `data` as in `size=64m,mode=1777`. */
export function mountTmpfs(_target: string, _data: string): void {
  throw new Error('not built');
}

/** Changes propagation of an existing mount. */
export function setPropagation(
  _target: string,
  _propagation: 'private' | 'slave' | 'shared',
  _recursive: boolean,
): void {
  throw new Error('not built');
}

/** Unmounts (MNT_DETACH, UMOUNT_NOFOLLOW) everything stacked on `target`; nothing when not mounted. */
export function unmount(_target: string): void {
  throw new Error('not built');
}
/** Unmounts every mount at or below a directory, deepest first; returns how many. */
export function unmountTree(_directory: string): number {
  throw new Error('not built');
}

export interface MountEntry {
  readonly id: number;
  readonly mountPoint: string;
  readonly filesystem: string;
  readonly source: string;
  readonly options: string;
  readonly root: string;
  readonly propagation: 'shared' | 'slave' | 'private' | 'unbindable';
}
/** /proc/self/mountinfo, with octal escapes decoded (proc(5)). */
export function listMounts(): MountEntry[] {
  throw new Error('not built');
}
/** The mount that holds a path (the last one that covers it). */
export function mountOf(_path: string): MountEntry | undefined {
  throw new Error('not built');
}
