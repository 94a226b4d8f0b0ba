import type { Outgoing } from '../../common/messages/message.ts'
import type { Topic } from '../../common/messages/topics.ts'
import type { ServiceName } from '../../common/name.ts'
import type { Environment } from '../../common/service/config.ts'
import type { Link, PartsKind } from './plan.ts'
import type { Message, Snapshot } from './snapshot.ts'

/** What the services of a run stand on, and what can be done to it. A fault's promise resolves when it is over. */
export interface ChaosParts {
  readonly kind: PartsKind
  /** Where the services keep their files. */
  readonly dataDir: string
  readonly storeUrls: Readonly<Record<'processor' | 'monitor', string>>
  environmentOf(service: ServiceName): Environment
  /** Told where the first gateway listens, before any service starts. */
  setGateway(url: string): Promise<void>
  freezeBroker(ms: number): Promise<void>
  killBroker(ms: number): Promise<void>
  restartBroker(): Promise<void>
  takeStoreAway(service: 'processor' | 'monitor', ms: number): Promise<void>
  lockDatabase(ms: number): Promise<void>
  hurt(link: Link, how: 'latency' | 'resets' | 'half-open' | 'partition', ms: number): Promise<void>
  /** Deletes the topic and makes it again. */
  remakeTopic(topic: Topic): Promise<void>
  /** When that happened. */
  readonly remade: Snapshot['remade']
  /** As a program that knows nothing of the services. */
  publishForeign(messages: readonly Outgoing[]): Promise<void>
  /** Every message of every topic, those of topics that were deleted too. */
  readTopics(): Promise<readonly Message[]>
  dispose(): Promise<void>
}
