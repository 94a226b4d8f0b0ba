import { GraphQLError, Kind, NoSchemaIntrospectionCustomRule, type ValidationRule } from 'graphql'
import type { Plugin } from 'graphql-yoga'

const MAX_FIELDS = 200
const MAX_ROOT_FIELDS = 10

/** A query has so many fields at most, fragments counted where they stand; a mutation does few things at once. */
const boundedFields: ValidationRule = (context) => {
  let fields = 0
  return {
    Field(node) {
      fields += 1
      if (fields === MAX_FIELDS + 1)
        context.reportError(new GraphQLError(`A query has at most ${MAX_FIELDS} fields.`, { nodes: node }))
    },
    OperationDefinition(node) {
      const roots = node.selectionSet.selections.filter((selection) => selection.kind === Kind.FIELD)
      if (roots.length > MAX_ROOT_FIELDS)
        context.reportError(
          new GraphQLError(`At most ${MAX_ROOT_FIELDS} fields may be asked for at the root.`, { nodes: node }),
        )
    },
  }
}

/** In production the schema is not told. */
export function limits(options: { introspection: boolean }): Plugin {
  return {
    onValidate({ addValidationRule }) {
      addValidationRule(boundedFields)
      if (!options.introspection) addValidationRule(NoSchemaIntrospectionCustomRule)
    },
  }
}
