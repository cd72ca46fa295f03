// What an API server fills in where people leave things out of a pod, and a kubelet relies on
// (Kubernetes' pkg/apis/core/v1/defaults.go): as far as the tests' pods need it.

import { isObject, type Json, type JsonObject } from './strategic-merge.ts';

const PROBES = ['startupProbe', 'readinessProbe', 'livenessProbe'];

export function withPodDefaults(spec: JsonObject): JsonObject {
  return {
    restartPolicy: 'Always',
    dnsPolicy: 'Default',
    schedulerName: 'default-scheduler',
    terminationGracePeriodSeconds: 30,
    enableServiceLinks: true,
    securityContext: {},
    ...mapped(spec, ['containers', 'initContainers', 'ephemeralContainers'], containerDefaults),
    ...mapped(spec, ['volumes'], volumeDefaults),
    ...without(spec, ['containers', 'initContainers', 'ephemeralContainers', 'volumes']),
  };
}

function without(object: JsonObject, keys: readonly string[]): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)));
}

function mapped(
  spec: JsonObject,
  lists: readonly string[],
  fill: (one: JsonObject) => JsonObject,
): JsonObject {
  const present = lists.filter((name) => Array.isArray(spec[name]));
  return Object.fromEntries(
    present.map((name) => [name, (spec[name] as readonly JsonObject[]).map(fill)]),
  );
}

function containerDefaults(container: JsonObject): JsonObject {
  const resources = isObject(container['resources']) ? container['resources'] : {};
  const limits = isObject(resources['limits']) ? resources['limits'] : {};
  const requests = isObject(resources['requests']) ? resources['requests'] : {};
  return {
    imagePullPolicy: 'IfNotPresent',
    terminationMessagePath: '/dev/termination-log',
    terminationMessagePolicy: 'File',
    ...container,
    ...Object.fromEntries(
      PROBES.flatMap((name) => {
        const probe = container[name];
        return isObject(probe) ? [[name, probeDefaults(probe)]] : [];
      }),
    ),
    resources:
      Object.keys(limits).length === 0
        ? resources
        : { ...resources, limits, requests: { ...limits, ...requests } },
    env: ((container['env'] ?? []) as readonly JsonObject[]).map(withFieldVersion),
  };
}

function probeDefaults(probe: JsonObject): JsonObject {
  const { httpGet } = probe;
  return {
    timeoutSeconds: 1,
    periodSeconds: 10,
    successThreshold: 1,
    failureThreshold: 3,
    ...probe,
    ...(isObject(httpGet) ? { httpGet: { scheme: 'HTTP', path: '/', ...httpGet } } : {}),
  };
}

function volumeDefaults(volume: JsonObject): JsonObject {
  const modes = ['configMap', 'secret', 'projected', 'downwardAPI'];
  return Object.fromEntries(
    Object.entries(volume).map(([key, value]): [string, Json] => {
      if (!isObject(value)) return [key, value];
      return [key, modes.includes(key) ? { defaultMode: 0o644, ...value } : value];
    }),
  );
}

/** `fieldRef` says which version's fields it means. */
function withFieldVersion(variable: JsonObject): JsonObject {
  const from = variable['valueFrom'];
  if (!isObject(from) || !isObject(from['fieldRef'])) return variable;
  const fieldRef = { apiVersion: 'v1', ...from['fieldRef'] };
  return { ...variable, valueFrom: { ...from, fieldRef } };
}
