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

/** What tools ask of a schema by introspection has 230. */
const MAX_FIELDS = 250
const MAX_ROOT_FIELDS = 10
/** Eight for each field. A body of 64 KiB has room for 30,000, each of which costs 500 bytes and a look at the others. */
const MAX_TOKENS = 2000
/** A document that is kept takes up to 250 times its length: 50 MB. */
const MAX_KEPT_CHARACTERS = 200_000

/** A query has so many fields at most, those of a fragment wherever it is spread; a mutation does few things at once. */
const boundedFields: ValidationRule = (context) => {
  const fields = counter(context, (own) => own)
  const roots = counter(context, () => 0)
  return {
    OperationDefinition(node) {
      if (fields(node.selectionSet) > MAX_FIELDS)
        context.reportError(new GraphQLError(`A query has at most ${MAX_FIELDS} fields.`, { nodes: node }))
      if (roots(node.selectionSet) > MAX_ROOT_FIELDS)
        context.reportError(
          new GraphQLError(`At most ${MAX_ROOT_FIELDS} fields may be asked for at the root.`, { nodes: node }),
        )
    },
  }
}

/** Counts the fields of a selection, with `below` of what is selected of each. A fragment is counted once, and then known. */
function counter(
  context: ValidationContext,
  below: (fields: number) => number,
): (selected: SelectionSetNode) => number {
  const ofFragments = new Map<string, number>()

  function ofFragment(name: string): number {
    const known = ofFragments.get(name)
    if (known !== undefined) return known
    // One that is spread within itself is refused by another rule.
    ofFragments.set(name, 0)
    const fragment = context.getFragment(name)
    const fields = fragment ? count(fragment.selectionSet) : 0
    ofFragments.set(name, fields)
    return fields
  }

  function count({ selections }: SelectionSetNode): number {
    return selections.reduce((sum, selection) => {
      if (selection.kind === Kind.FRAGMENT_SPREAD) return sum + ofFragment(selection.name.value)
      if (selection.kind === Kind.INLINE_FRAGMENT) return sum + count(selection.selectionSet)
      return sum + 1 + (selection.selectionSet ? below(count(selection.selectionSet)) : 0)
    }, 0)
  }

  return count
}

/** Bounds what a document costs before anyone is asked for a token. In production the schema is not told. */
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

/** What parsing made of the latest documents: bounded by their length, since anyone may send them. */
export function documentCaches() {
  return { documentCache: latest<DocumentNode>(), errorCache: latest<Error>() }
}

function latest<Parsed extends object>() {
  return new LRUCache<string, Parsed>({
    maxSize: MAX_KEPT_CHARACTERS,
    sizeCalculation: (_, document) => document.length + 1,
  })
}
