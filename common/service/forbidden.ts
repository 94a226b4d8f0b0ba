import type { Context } from 'hono'
import type { ServiceName } from '../name.ts'
import type { Caller } from './auth.ts'
import { clientAddress } from './client-address.ts'
import type { CommonConfig } from './config.ts'
import { eventNetwork } from './network.ts'

/** A request that was answered with 403, as an event tells of it. */
export interface Forbidden {
  readonly user?: string | undefined
  readonly service: ServiceName
  readonly method: string
  /** With the names of its parameters, and not what they were. */
  readonly route: string
  readonly network?: string | undefined
}

export function forbiddenRequest(
  c: Context,
  more: { service: ServiceName; route: string; trustedProxies: CommonConfig['trustedProxies'] },
): Forbidden {
  const { service, route, trustedProxies } = more
  const caller: Caller | undefined = c.get('caller')
  return {
    user: caller?.user,
    service,
    method: c.req.method,
    route,
    network: eventNetwork(clientAddress(c, trustedProxies)),
  }
}

export const withoutUser = ({ service, method, route }: Forbidden): Forbidden => ({ service, method, route })
