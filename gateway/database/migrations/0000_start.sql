CREATE TABLE `checkpoints` (
	`id` integer PRIMARY KEY NOT NULL,
	`jwt` text NOT NULL,
	`forgotten` integer DEFAULT false NOT NULL,
	CONSTRAINT "checkpoints_one" CHECK("id" = 1)
);
--> statement-breakpoint
CREATE TABLE `leases` (
	`name` text PRIMARY KEY NOT NULL,
	`owner` text,
	`epoch` integer NOT NULL,
	`beat` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `operations` (
	`id` text PRIMARY KEY NOT NULL,
	`user_id` text NOT NULL,
	`type` text NOT NULL,
	`status` text DEFAULT 'pending' NOT NULL,
	`input` text NOT NULL,
	`facts` text,
	`output` text,
	`error_code` text,
	`error_message` text,
	`traceparent` text,
	`idempotency_key` text,
	`created_at` integer NOT NULL,
	`completed_at` integer,
	`resend_at` integer,
	`resends` integer DEFAULT 0 NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `operations_by_idempotency_key` ON `operations` (`user_id`,`idempotency_key`) WHERE "idempotency_key" IS NOT NULL;--> statement-breakpoint
CREATE INDEX `operations_by_user` ON `operations` (`user_id`,`id`);--> statement-breakpoint
CREATE INDEX `operations_pending_by_user` ON `operations` (`user_id`) WHERE "status" = 'pending';--> statement-breakpoint
CREATE INDEX `operations_pending_by_resend` ON `operations` (`resend_at`) WHERE "status" = 'pending';--> statement-breakpoint
CREATE TABLE `outbox` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`operation_id` text,
	`event` text,
	CONSTRAINT "outbox_request_or_event" CHECK(("operation_id" IS NULL) <> ("event" IS NULL))
);
--> statement-breakpoint
CREATE TABLE `refresh_tokens` (
	`hash` text PRIMARY KEY NOT NULL,
	`session_id` text NOT NULL,
	`user_id` text NOT NULL,
	`created_at` integer NOT NULL,
	`used_at` integer,
	`successor_salt` text,
	`expires_at` integer NOT NULL,
	`session_expires_at` integer NOT NULL,
	`refreshes` integer DEFAULT 0 NOT NULL,
	FOREIGN KEY (`user_id`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `refresh_tokens_by_session` ON `refresh_tokens` (`session_id`);--> statement-breakpoint
CREATE INDEX `refresh_tokens_unused` ON `refresh_tokens` (`user_id`,`session_id`) WHERE "used_at" IS NULL;--> statement-breakpoint
CREATE INDEX `refresh_tokens_by_user` ON `refresh_tokens` (`user_id`);--> statement-breakpoint
CREATE INDEX `refresh_tokens_by_expiry` ON `refresh_tokens` (`expires_at`);--> statement-breakpoint
CREATE TABLE `signing_keys` (
	`kid` text PRIMARY KEY NOT NULL,
	`status` text NOT NULL,
	`private_jwk` text NOT NULL,
	`public_jwk` text NOT NULL,
	`created_at` integer NOT NULL,
	`activated_at` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `signing_keys_status_unique` ON `signing_keys` (`status`);--> statement-breakpoint
CREATE TABLE `users` (
	`id` text PRIMARY KEY NOT NULL,
	`email` text NOT NULL,
	`password_hash` text NOT NULL,
	`role` text DEFAULT 'user' NOT NULL,
	`disabled_at` integer,
	`created_at` integer NOT NULL
);
--> statement-breakpoint
CREATE UNIQUE INDEX `users_email_unique` ON `users` (`email`);