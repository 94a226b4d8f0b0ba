import { type ServiceName, serviceNames } from '../common/name.ts'

const pages: Partial<Record<ServiceName, (url: string) => string>> = {
  gateway: (url) => `GraphQL ${url}/graphql`,
  monitor: (url) => `the latest events ${url}/`,
}

/** Where people find the services that run, a line each. */
export function addresses(urls: Partial<Record<ServiceName, string>>): string {
  return serviceNames
    .flatMap((name) => {
      const url = urls[name]
      return url === undefined ? [] : [`  ${name.padEnd(11)} ${url}/docs    ${pages[name]?.(url) ?? ''}`.trimEnd()]
    })
    .join('\n')
}
