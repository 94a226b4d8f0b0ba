import { expect, test } from 'bun:test'
import { eventNetwork, networkOf, networksOf } from './network.ts'

test('an IPv6 address counts by its /64, /56 and /48, however it is written', () => {
  const networks = ['2001:db8:1:2ff::/64', '2001:db8:1:200::/56', '2001:db8:1::/48'] as const
  expect(networksOf('2001:db8:1:2ff:3:4:5:6')).toEqual(networks)
  expect(networksOf('2001:0DB8:0001:02FF::1')).toEqual(networks)
  expect(networksOf('2001:db8:1:2ff::192.0.2.1%eth0')).toEqual(networks)
  expect(networksOf('::1')).toEqual(['0:0:0::/64', '0:0:0::/56', '0:0:0::/48'])
  expect(networksOf('fe80::')).toEqual(['fe80:0:0::/64', 'fe80:0:0::/56', 'fe80:0:0::/48'])
})

test('an IPv4 address is a network of its own, also in IPv6 form', () => {
  for (const address of ['192.0.2.1', '::ffff:192.0.2.1', '::FFFF:c000:201', '0:0:0:0:0:ffff:c000:0201'])
    expect(networksOf(address)).toEqual(['192.0.2.1'])
  expect(networkOf('unknown')).toBe('unknown')
})

test('an event names the /24 or the /48 of a client, and nothing where the address is unknown', () => {
  expect(eventNetwork('192.0.2.77')).toBe('192.0.2.0/24')
  expect(eventNetwork('::ffff:192.0.2.77')).toBe('192.0.2.0/24')
  expect(eventNetwork('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1::/48')
  expect(eventNetwork('unknown')).toBeUndefined()
})
