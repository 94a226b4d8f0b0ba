CREATE TABLE `checkpoints` (
	`id` integer PRIMARY KEY NOT NULL,
	`jwt` text NOT NULL,
	CONSTRAINT "checkpoints_one" CHECK("id" = 1)
);
