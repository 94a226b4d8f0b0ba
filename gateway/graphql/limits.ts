import {
  type DocumentNode,
  GraphQLError,
  Kind,
  NoSchemaIntrospectionCustomRule,
  type SelectionSetNode,
  type ValidationContext,
  type ValidationRule,
} from 'graphql'
import type { Plugin } from 'graphql-yoga'
import { LRUCache } from 'lru-cache'

/** The introspection query of common tools has 230 fields. */
const MAX_FIELDS = 250
const MAX_ROOT_FIELDS = 10
/** Eight per field. A body of 64 KiB has room for 30,000 tokens, each of which costs 500 bytes and a comparison with the rest. */
const MAX_TOKENS = 2000
/** A kept document takes up to 250 times its length in memory: 50 MB in all. */
const MAX_KEPT_CHARACTERS = 200_000

/** Bounds the fields of a query, those of a fragment counted wherever it is spread, and the fields at its root. */
const boundedFields: ValidationRule = (context) => {
  const countAll = counter(context, true)
  const countRoots = counter(context, false)
  return {
    OperationDefinition(node) {
      const refuse = (message: string) => context.reportError(new GraphQLError(message, { nodes: node }))
      if (countAll(node.selectionSet) > MAX_FIELDS) refuse(`A query may have at most ${MAX_FIELDS} fields.`)
      if (countRoots(node.selectionSet) > MAX_ROOT_FIELDS)
        refuse(`A query may have at most ${MAX_ROOT_FIELDS} fields at its root.`)
    },
  }
}

/** Makes the function that counts the fields of a selection, with or without the fields within them. */
function counter(context: ValidationContext, nested: boolean): (selected: SelectionSetNode) => number {
  // Each fragment is counted once: fragments that spread each other would otherwise cost exponential time.
  const counts = new Map<string, number>()

  function countFragment(name: string): number {
    const known = counts.get(name)
    if (known !== undefined) return known
    // Another rule refuses a fragment that is spread within itself.
    counts.set(name, 0)
    const fragment = context.getFragment(name)
    const fields = fragment ? count(fragment.selectionSet) : 0
    counts.set(name, fields)
    return fields
  }

  function count({ selections }: SelectionSetNode): number {
    return selections.reduce((sum, selection) => {
      if (selection.kind === Kind.FRAGMENT_SPREAD) return sum + countFragment(selection.name.value)
      if (selection.kind === Kind.INLINE_FRAGMENT) return sum + count(selection.selectionSet)
      return sum + 1 + (nested && selection.selectionSet ? count(selection.selectionSet) : 0)
    }, 0)
  }

  return count
}

/** Bounds what a document costs before its caller is authenticated. Without `introspection` the schema stays secret. */
export function limits(options: { introspection: boolean }): Plugin {
  return {
    onParse({ parseFn, setParseFn }) {
      setParseFn((source, parseOptions) => parseFn(source, { ...parseOptions, maxTokens: MAX_TOKENS }))
    },
    onValidate({ addValidationRule }) {
      addValidationRule(boundedFields)
      if (!options.introspection) addValidationRule(NoSchemaIntrospectionCustomRule)
    },
  }
}

/** Caches of the latest parsed documents, bounded by their length: anyone may send documents. */
export function documentCaches() {
  return { documentCache: latest<DocumentNode>(), errorCache: latest<Error>() }
}

function latest<Parsed extends object>() {
  return new LRUCache<string, Parsed>({
    maxSize: MAX_KEPT_CHARACTERS,
    sizeCalculation: (_, document) => document.length + 1,
  })
}
