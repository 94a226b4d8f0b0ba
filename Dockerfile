# One image for the three services. The command says which: `gateway/main.ts`, `processor/main.ts` or `monitor/main.ts`.

FROM oven/bun:1.4.5 AS dependencies
WORKDIR /app
COPY package.json bun.lock bunfig.toml ./
COPY patches patches
COPY common/package.json common/
COPY gateway/package.json gateway/
COPY processor/package.json processor/
COPY monitor/package.json monitor/
RUN bun install --frozen-lockfile --production

FROM oven/bun:1.4.5-slim
WORKDIR /app
COPY --from=dependencies /app ./
COPY common common
COPY gateway gateway
COPY processor processor
COPY monitor monitor
# A new volume takes its owner from this folder.
RUN mkdir /data && chown bun:bun /data
ENV NODE_ENV=production HOST=0.0.0.0 DATA_DIR=/data
USER bun
EXPOSE 3000 3001 3002
# Bun itself is process 1, so that SIGTERM reaches the service.
ENTRYPOINT ["bun"]
CMD ["gateway/main.ts"]
