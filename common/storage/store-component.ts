import type { Component } from '../service/component.ts'
import { ConfigError } from '../service/config.ts'

/** A service's store. A start fails where the store can never be used; while it is only down, the service runs without it. */
export function storeComponent({ ping, close }: { ping(): Promise<void>; close(): Promise<void> }): Component {
  return {
    name: 'store',
    async start() {
      await ping().catch((error: unknown) => {
        if (error instanceof ConfigError) throw error
      })
    },
    check: ping,
    close,
  }
}
