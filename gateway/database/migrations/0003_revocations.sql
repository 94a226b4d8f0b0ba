CREATE TABLE `revocations` (
	`subject` text PRIMARY KEY NOT NULL,
	`at` integer NOT NULL
);
--> statement-breakpoint
CREATE INDEX `revocations_by_time` ON `revocations` (`at`);