import { resolve } from 'node:path'

/** The absolute path of a `file:` URL. A relative one is relative to the working directory. */
export function filePath(url: string): string {
  return resolve(url.replace(/^file:(?:\/\/)?/, ''))
}

/** The URL of a file in a folder. */
export function fileUrl(folder: string, name: string): string {
  return `file:${resolve(folder, name)}`
}
