/** The system's name, from which topics, groups, message types and the token audience follow. */
export const NAME = 'posta'
