/** The system's name, from which topics, groups, message types and the token audience follow. */
export const NAME = 'posta'

/** Each is a folder, a process and a part of what its variables are called. */
export const serviceNames = ['gateway', 'processor', 'monitor'] as const
export type ServiceName = (typeof serviceNames)[number]
