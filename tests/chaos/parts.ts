import type { Topic } from '../../common/messages/topics.ts'
import type { ServiceName } from '../../common/name.ts'
import type { Environment } from '../../common/service/config.ts'
import type { Message, Snapshot } from './snapshot.ts'

export type PartsKind = Snapshot['parts']

/** The connections that lead through a proxy, each from a service to what it calls. */
export const links = [
  'gateway-broker',
  'processor-broker',
  'monitor-broker',
  'processor-store',
  'monitor-store',
  'processor-gateway',
  'monitor-gateway',
] as const
export type Link = (typeof links)[number]

export type LinkFault = 'latency' | 'resets' | 'half-open' | 'partition'

/** The broker and the stores of a run, and the faults that can be done to them. A fault resolves when it is over. */
export interface ChaosParts {
  readonly storeUrls: Readonly<Record<'processor' | 'monitor', string>>
  environmentOf(service: ServiceName): Environment
  freezeBroker(ms: number): Promise<void>
  killBroker(ms: number): Promise<void>
  restartBroker(): Promise<void>
  stopStore(service: 'processor' | 'monitor', ms: number): Promise<void>
  lockDatabase(ms: number): Promise<void>
  disturb(link: Link, how: LinkFault, ms: number): Promise<void>
  /** Deletes the topic and creates it again. */
  recreateTopic(topic: Topic): Promise<void>
  /** When that happened. */
  readonly recreated: Snapshot['recreated']
  /** The environment with which another program reaches the broker, without a proxy. */
  readonly foreign: Environment
  /** Reads every message of every topic, and those of topics that were deleted. */
  readTopics(): Promise<readonly Message[]>
  dispose(): Promise<void>
}
