// What a pod wants of its network beyond an address (CNI conventions, "dynamic plugin specific
// fields"): each is handed only to plugins that declare the capability.

import type { PodSandboxConfig, PortMapping } from '@cribus/contracts/gen/cri/v1/api.ts';
import { Protocol } from '@cribus/contracts/gen/cri/v1/api.ts';
import { parseQuantity } from './quantity.ts';

export type CapabilityArgs = Readonly<Record<string, unknown>>;

/** The annotations that the kubelet's documentation names for the bandwidth plugin. */
export const INGRESS_ANNOTATION = 'kubernetes.io/ingress-bandwidth';
export const EGRESS_ANNOTATION = 'kubernetes.io/egress-bandwidth';
/** Kubernetes allows 1k to 1P bits per second (k8s.io/kubernetes, pkg/util/bandwidth). */
const BANDWIDTH_MIN = 1_000;
const BANDWIDTH_MAX = 1e15;
/** In bits; the bandwidth plugin holds a burst in 32 bits. */
const BURST_BITS = 2 ** 31 - 1;

const PROTOCOL_NAMES: Readonly<Record<Protocol, string>> = {
  [Protocol.TCP]: 'tcp',
  [Protocol.UDP]: 'udp',
  [Protocol.SCTP]: 'sctp',
};

/** Raises invalid_argument for an unreadable bandwidth. `podCidr` is UpdateRuntimeConfig's. */
export function capabilityArgs(config: PodSandboxConfig, podCidr: string): CapabilityArgs {
  const args: Record<string, unknown> = {};
  const mappings = hostPorts(config.portMappings);
  if (mappings.length > 0) args['portMappings'] = mappings.map(portMapping);
  const bandwidth = bandwidthArgs(config.annotations);
  if (bandwidth !== undefined) args['bandwidth'] = bandwidth;
  const dns = config.dnsConfig;
  if (dns !== undefined && dns.servers.length + dns.searches.length + dns.options.length > 0) {
    args['dns'] = { servers: dns.servers, searches: dns.searches, options: dns.options };
  }
  if (podCidr !== '') {
    args['ipRanges'] = podCidr.split(',').map((subnet) => [{ subnet: subnet.trim() }]);
  }
  return args;
}

/** A host port of 0 asks for none (CRI, PortMapping). */
export function hostPorts(mappings: readonly PortMapping[]): readonly PortMapping[] {
  return mappings.filter((mapping) => mapping.hostPort > 0);
}

function portMapping(mapping: PortMapping): object {
  return {
    hostPort: mapping.hostPort,
    containerPort: mapping.containerPort,
    protocol: PROTOCOL_NAMES[mapping.protocol],
    ...(mapping.hostIp === '' ? {} : { hostIP: mapping.hostIp }),
  };
}

function bandwidthArgs(annotations: Readonly<Record<string, string>>): object | undefined {
  const limits = { min: BANDWIDTH_MIN, max: BANDWIDTH_MAX };
  const ingress = annotations[INGRESS_ANNOTATION];
  const egress = annotations[EGRESS_ANNOTATION];
  if (ingress === undefined && egress === undefined) return undefined;
  const bandwidth: Record<string, number> = {};
  if (ingress !== undefined) {
    bandwidth['ingressRate'] = parseQuantity(ingress, { ...limits, name: INGRESS_ANNOTATION });
    bandwidth['ingressBurst'] = BURST_BITS;
  }
  if (egress !== undefined) {
    bandwidth['egressRate'] = parseQuantity(egress, { ...limits, name: EGRESS_ANNOTATION });
    bandwidth['egressBurst'] = BURST_BITS;
  }
  return bandwidth;
}
