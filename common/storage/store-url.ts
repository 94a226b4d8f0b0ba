import * as v from 'valibot'

/** Where a service keeps its documents. The database is named in the URL, since a MongoDB server has several. */
export const StoreUrl = v.pipe(
  v.string(),
  v.regex(
    /^(?:file:.|mongodb:\/\/[^/?#]+\/[^/?#]+(?:\?|$))/,
    'must be file:path or name a server and a database, as in mongodb://host:port/name',
  ),
)
