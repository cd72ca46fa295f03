// Strategic merge patches, as a kubelet sends them for the status of its node and pods (Kubernetes'
// sig-api-machinery, strategic-merge-patch.md): of lists that are merged only those which it patches.

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: Json;
}

/** List to the key that tells its elements apart; other lists are replaced as a whole. */
const MERGE_KEYS: Readonly<Record<string, string>> = {
  conditions: 'type',
  addresses: 'type',
  podIPs: 'ip',
  hostIPs: 'ip',
};

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The object with the patch applied; null takes a field away. */
export function mergePatch(target: JsonObject, patch: JsonObject): JsonObject {
  if (patch['$patch'] === 'replace') return withoutDirectives(patch);
  const merged: Record<string, Json> = { ...target };
  for (const [key, value] of Object.entries(withoutDirectives(patch))) {
    const former = merged[key];
    const mergeKey = MERGE_KEYS[key];
    if (value === null) delete merged[key];
    else if (isObject(value)) merged[key] = mergePatch(isObject(former) ? former : {}, value);
    else if (Array.isArray(value) && mergeKey !== undefined)
      merged[key] = mergeLists(Array.isArray(former) ? former : [], value, mergeKey);
    else merged[key] = value;
  }
  return merged;
}

function mergeLists(former: readonly Json[], patch: readonly Json[], key: string): Json[] {
  const keyOf = (element: Json) => (isObject(element) ? element[key] : element);
  const merged = [...former];
  for (const change of patch.filter(isObject)) {
    const index = merged.findIndex((element) => keyOf(element) === change[key]);
    const known = merged[index];
    if (change['$patch'] === 'delete') {
      if (index >= 0) merged.splice(index, 1);
    } else if (isObject(known)) merged[index] = mergePatch(known, change);
    else merged.push(change);
  }
  return merged;
}

/** `$setElementOrder/conditions` and the like say what nobody here looks at. */
function withoutDirectives(patch: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(patch).filter(([key]) => !key.startsWith('$')));
}
