import type { Deps } from '@posta/common/service/deps.ts'
import type { Writer } from '../database/commit.ts'
import type { AddEvent } from '../database/events.ts'
import type { Database } from '../database/open.ts'
import type { Passwords } from './passwords.ts'

/** What every function of accounts works with. */
export interface AccountOptions {
  readonly database: Database
  readonly writer: Writer
  readonly passwords: Passwords
  readonly addEvent: AddEvent
  readonly deps: Pick<Deps, 'now' | 'newId'>
}
