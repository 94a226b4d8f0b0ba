CREATE TABLE `attempts` (
	`key` text PRIMARY KEY NOT NULL,
	`zero_at` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `attempts_by_time` ON `attempts` (`zero_at`);--> statement-breakpoint
CREATE TABLE `secrets` (
	`name` text PRIMARY KEY NOT NULL,
	`value` text NOT NULL
);
--> statement-breakpoint
ALTER TABLE `refresh_tokens` ADD `used_by` text;