import * as v from 'valibot'

// Pieces of the schemas of routes.

export const Id = v.pipe(v.string(), v.minLength(1), v.maxLength(256))
export const Time = v.pipe(
  v.string(),
  v.isoTimestamp('must be a time such as 2026-11-23T12:00:00Z'),
  v.transform((text) => Date.parse(text)),
  v.check((ms) => !Number.isNaN(ms), 'must be a time that exists'),
)
export const described = <Schema extends v.GenericSchema>(schema: Schema, description: string) =>
  v.pipe(schema, v.metadata({ description }))
