import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { bridgeConflist } from './conflist.ts';
import { parseChains, removalScript } from './iptables.ts';
import { chooseSubnet, gatewayOf, overlap, parseNetwork, parseRoutes } from './subnets.ts';

const networks = (...texts: string[]) => texts.flatMap((text) => parseNetwork(text) ?? []);

describe('the subnet of a stack', () => {
  it('is the first free /24 from the seed on', () => {
    assert.equal(chooseSubnet([], 0), '10.88.0.0/24');
    assert.equal(chooseSubnet([], 257), '10.89.1.0/24');
    assert.equal(chooseSubnet(networks('10.88.0.0/24', '10.88.1.7/25'), 0), '10.88.2.0/24');
    assert.equal(chooseSubnet(networks('10.88.0.0/13'), 5), '10.96.0.0/24');
    assert.equal(chooseSubnet(networks('10.127.255.9/32'), 10_239), '10.88.0.0/24');
  });

  it('is refused when the host routes all of them', () => {
    assert.throws(() => chooseSubnet(networks('10.0.0.0/8'), 3), /no \/24 between/);
  });

  it('does not overlap', () => {
    const [a, b, c] = networks('192.168.0.0/16', '192.168.7.0/24', '192.169.0.0/16');
    assert.ok(a !== undefined && b !== undefined && c !== undefined);
    assert.ok(overlap(a, b) && overlap(b, a));
    assert.ok(!overlap(a, c));
    assert.deepEqual(networks('10.0.0.1', '300.0.0.0/8', '1.2.3.4/33', 'fe80::/64'), []);
    assert.equal(gatewayOf('10.88.3.0/24'), '10.88.3.1');
  });

  it('reads the routes of the kernel but the default one and those of its own bridge', () => {
    const row = (name: string, destination: string, mask: string) =>
      [name, destination, '00000000', '0001', '0', '0', '0', mask, '0', '0', '0'].join('\t');
    const text = [
      'Iface\tDestination',
      row('eth0', '00000000', '00000000'),
      row('eth0', '0002580A', '00FFFFFF'),
      row('cb-1', '0003580A', '00FFFFFF'),
    ].join('\n');
    assert.deepEqual(parseRoutes(text, 'cb-1'), networks('10.88.2.0/24'));
    assert.equal(parseRoutes(text).length, 2);
  });
});

describe("the stack's own network", () => {
  it('is a bridge with NAT, its addresses in the state, and host ports', () => {
    const list = JSON.parse(
      bridgeConflist({
        name: 'cribus-x',
        bridge: 'cb-x',
        subnet: '10.90.1.0/24',
        dataDirectory: '/d',
      }),
    );
    assert.equal(list.cniVersion, '1.0.0');
    const [bridge, portmap] = list.plugins;
    assert.deepEqual(
      [bridge.bridge, bridge.isGateway, bridge.ipMasq, bridge.hairpinMode, bridge.ipam.dataDir],
      ['cb-x', true, true, true, '/d'],
    );
    assert.deepEqual(bridge.ipam.ranges, [[{ subnet: '10.90.1.0/24', gateway: '10.90.1.1' }]]);
    assert.deepEqual([portmap.type, portmap.capabilities.portMappings], ['portmap', true]);
  });
});

const RULES = `-P PREROUTING ACCEPT
-N CNI-HOSTPORT-DNAT
-N CNI-HOSTPORT-MASQ
-N CNI-HOSTPORT-SETMARK
-N OTHER
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A POSTROUTING -j OTHER
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
`;

describe("portmap's chains", () => {
  it('go with the jumps to them, quotes kept, in one transaction', () => {
    assert.deepEqual(parseChains(RULES).at(-1), 'OTHER');
    assert.deepEqual(removalScript(RULES, [])?.split('\n'), [
      '*nat',
      '-D PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT',
      '-D POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ',
      '-F CNI-HOSTPORT-DNAT',
      '-F CNI-HOSTPORT-SETMARK',
      '-F CNI-HOSTPORT-MASQ',
      '-X CNI-HOSTPORT-DNAT',
      '-X CNI-HOSTPORT-SETMARK',
      '-X CNI-HOSTPORT-MASQ',
      'COMMIT',
      '',
    ]);
  });

  it('stay when they were there before, or a host port is mapped', () => {
    assert.equal(removalScript(RULES, parseChains(RULES)), undefined);
    const mapped = `${RULES}-A CNI-HOSTPORT-DNAT -p tcp -j CNI-DN-1234\n`;
    assert.equal(removalScript(mapped, []), undefined);
    assert.equal(removalScript('-P PREROUTING ACCEPT\n', []), undefined);
  });
});
