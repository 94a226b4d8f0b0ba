import { randomBytes, timingSafeEqual } from 'node:crypto'
import type { Mac } from './secret.ts'

/**
 * Device tokens, as OWASP describes device cookies. Whoever logs in gets one. It says that someone on this device knew the
 * password of this email, and lets nobody in: it only gives their next logins a count and a queue of their own, so that
 * strangers who try passwords refuse nobody on a device that is known.
 */
export interface Devices {
  /** A token for the device that `presented` is for, if it is one for this email; else for a new device. */
  issue(email: string, presented?: string): string
  /** The device's id, if the token is one for this email. */
  identify(email: string, token: string | undefined): string | undefined
}

/** An id of 128 random bits, a dot, and the keyed hash that binds it to the email. */
const TOKEN = /^([\w-]{22})\.([\w-]{43})$/

export function createDevices(mac: Mac): Devices {
  const signed = (email: string, id: string) => `${id}.${mac('device', id, email)}`

  function identify(email: string, token: string | undefined): string | undefined {
    const [, id] = TOKEN.exec(token ?? '') ?? []
    if (token === undefined || id === undefined) return undefined
    return timingSafeEqual(Buffer.from(signed(email, id)), Buffer.from(token)) ? id : undefined
  }

  return {
    issue: (email, presented) => signed(email, identify(email, presented) ?? randomBytes(16).toString('base64url')),
    identify,
  }
}
