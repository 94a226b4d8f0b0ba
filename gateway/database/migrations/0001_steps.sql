ALTER TABLE `operations` ADD `progress` text;--> statement-breakpoint
ALTER TABLE `operations` ADD `waiting` integer DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE `operations` ADD `inputs` text;--> statement-breakpoint
CREATE INDEX `operations_waiting_by_user` ON `operations` (`user_id`) WHERE "status" = 'pending' AND "waiting" = 1;