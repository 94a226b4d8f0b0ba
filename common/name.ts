/** The system's name. Topics, groups and message types begin with it; it is the tokens' audience. */
export const NAME = 'posta'

/** Each is the name of a folder and of a process, and the beginning of that service's variables. */
export const serviceNames = ['gateway', 'processor', 'monitor'] as const
export type ServiceName = (typeof serviceNames)[number]
