CREATE TABLE `checkpoints` (
	`id` integer PRIMARY KEY NOT NULL,
	`jwt` text NOT NULL,
	`forgotten` integer DEFAULT false NOT NULL,
	CONSTRAINT "checkpoints_one" CHECK("id" = 1)
);
