// The network configuration that a stack provides for itself. Pure.

import { gatewayOf } from './subnets.ts';

export interface BridgeNetwork {
  readonly name: string;
  readonly bridge: string;
  readonly subnet: string;
  /** host-local keeps the addresses it gave out here. */
  readonly dataDirectory: string;
}

/** A list by the CNI specification 1.0.0: a bridge with NAT, and host ports. */
export function bridgeConflist(network: BridgeNetwork): string {
  const list = {
    cniVersion: '1.0.0',
    name: network.name,
    plugins: [
      {
        type: 'bridge',
        bridge: network.bridge,
        isGateway: true,
        ipMasq: true,
        hairpinMode: true,
        ipam: {
          type: 'host-local',
          dataDir: network.dataDirectory,
          ranges: [[{ subnet: network.subnet, gateway: gatewayOf(network.subnet) }]],
          routes: [{ dst: '0.0.0.0/0' }],
        },
      },
      { type: 'portmap', capabilities: { portMappings: true }, snat: true },
    ],
  };
  return `${JSON.stringify(list, undefined, 2)}\n`;
}
