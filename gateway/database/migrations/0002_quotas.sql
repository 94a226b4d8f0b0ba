CREATE TABLE `usage` (
	`user_id` text NOT NULL,
	`quota` text NOT NULL,
	`period` integer NOT NULL,
	`used` integer NOT NULL,
	PRIMARY KEY(`user_id`, `quota`)
);
