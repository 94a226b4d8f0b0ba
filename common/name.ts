/** The system's name. Topics, groups and message types begin with it; it is the tokens' audience. */
export const NAME = 'posta'

/** The name as people read it: `My Shop` of `my-shop`. */
export const TITLE = NAME.split('-')
  .map((word) => word.replace(/^./, (letter) => letter.toUpperCase()))
  .join(' ')

/** Each is the name of a folder and of a process, and the beginning of that service's variables. */
export const serviceNames = ['gateway', 'processor', 'monitor'] as const
export type ServiceName = (typeof serviceNames)[number]
