variable "project_id" {
  description = "Project that everything is made in."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id is no id of a project: 6 to 30 lower-case letters, digits and hyphens."
  }
}

variable "region" {
  description = "Region of the queue, the pipeline and the sensors."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region is no region; write one such as europe-west1."
  }
}

variable "name" {
  description = "What the names of all resources begin with."
  type        = string
  default     = "flowbeam"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,16}[a-z0-9]$", var.name))
    error_message = "name must have 3 to 18 lower-case letters, digits and hyphens, and begin with a letter."
  }
}

variable "labels" {
  description = "Labels of all resources that take some."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key, value in var.labels : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))])
    error_message = "labels: keys and values have at most 63 lower-case letters, digits, hyphens and underscores; keys begin with a letter."
  }
}

variable "deletion_protection" {
  description = "Refuses to remove tables and buckets that hold data."
  type        = bool
  default     = true
}

variable "kms_key" {
  description = "Key of Cloud KMS for queue, tables, buckets and pipeline; Google's own keys without one. The services' agents must be allowed to use it."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key == null || can(regex("^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key))
    error_message = "kms_key must be projects/P/locations/L/keyRings/R/cryptoKeys/K."
  }
}

variable "dataset_location" {
  description = "Location of the BigQuery dataset; the region without one."
  type        = string
  default     = null

  validation {
    condition     = var.dataset_location == null || can(regex("^(EU|US|[a-z]+-[a-z]+[0-9]+)$", var.dataset_location))
    error_message = "dataset_location is EU, US or a region such as europe-west1."
  }
}

variable "flow_retention_days" {
  description = "Days that flows are kept, from their start; 0 for ever."
  type        = number
  default     = 90

  validation {
    condition     = var.flow_retention_days >= 0 && floor(var.flow_retention_days) == var.flow_retention_days
    error_message = "flow_retention_days must be 0 or a whole number of days."
  }
}

variable "aside_retention_days" {
  description = "Days that rejects, events of sensors and drift are kept."
  type        = number
  default     = 90

  validation {
    condition     = var.aside_retention_days >= 1 && floor(var.aside_retention_days) == var.aside_retention_days
    error_message = "aside_retention_days must be a whole number of days, at least 1."
  }
}

variable "packet_retention_hours" {
  description = "Hours that packets wait for the pipeline; then they are lost."
  type        = number
  default     = 24

  validation {
    condition     = var.packet_retention_hours >= 1 && var.packet_retention_hours <= 168
    error_message = "packet_retention_hours must be 1 to 168."
  }
}

variable "subnet_cidr" {
  description = "Addresses of workers and sensors."
  type        = string
  default     = "10.77.0.0/22"

  validation {
    condition     = can(cidrnetmask(var.subnet_cidr))
    error_message = "subnet_cidr is no IPv4 network such as 10.77.0.0/22."
  }
}

variable "internet_access" {
  description = "Lets workers and sensors open connections to the internet by NAT, say to an Elasticsearch elsewhere. Google's services need none of it."
  type        = bool
  default     = false
}

variable "pipeline" {
  description = "The Dataflow job; none without it. `template` is the container spec of the flex template, `options` further options of pipelines.flows: texts, numbers, true for a switch, lists for what may be repeated."
  type = object({
    template     = string
    image        = optional(string)
    options      = optional(any, {})
    machine_type = optional(string, "n2-standard-2")
    workers      = optional(number, 1)
    most_workers = optional(number, 4)
  })
  default = null

  validation {
    condition     = var.pipeline == null || can(regex("^gs://.+", var.pipeline.template))
    error_message = "pipeline.template must be a container spec on Cloud Storage: gs://BUCKET/PATH.json."
  }

  validation {
    condition     = var.pipeline == null || try(var.pipeline.workers >= 1 && var.pipeline.workers <= var.pipeline.most_workers, false)
    error_message = "pipeline.workers must be at least 1 and at most pipeline.most_workers."
  }

  validation {
    condition     = var.pipeline == null || can(regex("^(?:[a-z0-9]+-)?[a-z]+-([0-9]+)", var.pipeline.machine_type))
    error_message = "pipeline.machine_type must say how many cores it has: n2-standard-2, n2-custom-4-8192."
  }

  validation {
    condition     = var.pipeline == null || try(length(setintersection(keys(var.pipeline.options), ["runner", "project", "region", "job_name", "temp_location", "staging_location"])) == 0, false)
    error_message = "pipeline.options: runner, project, region, job_name, temp_location and staging_location are set by the module."
  }
}

variable "sensors" {
  description = "Sensors behind Packet Mirroring; none without it. `subnetworks` (self links) and `tags` say whose packets are mirrored, `network` (self link) where they are. With a `number` above 1, the two directions of a connection may reach two sensors, which make a flow each."
  type = object({
    image        = string
    network      = string
    subnetwork   = string
    subnetworks  = optional(list(string), [])
    tags         = optional(list(string), [])
    cidr_ranges  = optional(list(string), [])
    machine_type = optional(string, "n2-standard-4")
    number       = optional(number, 1)
    options      = optional(list(string), [])
  })
  default = null

  validation {
    condition     = var.sensors == null || try(length(var.sensors.subnetworks) + length(var.sensors.tags) > 0, false)
    error_message = "sensors: say whose packets are mirrored, with subnetworks or tags."
  }

  validation {
    condition     = var.sensors == null || try(can(regex("@sha256:[0-9a-f]{64}$", var.sensors.image)), false)
    error_message = "sensors.image must be pinned by its digest: REGISTRY/IMAGE@sha256:..."
  }

  validation {
    condition     = var.sensors == null || try(var.sensors.number >= 1 && floor(var.sensors.number) == var.sensors.number, false)
    error_message = "sensors.number must be 1 or more."
  }

  validation {
    condition     = var.sensors == null || try(alltrue([for range in var.sensors.cidr_ranges : can(cidrhost(range, 0))]), false)
    error_message = "sensors.cidr_ranges: write networks such as 10.0.0.0/8 or 2001:db8::/32; none for all."
  }

  validation {
    condition     = var.sensors == null || try(alltrue([for option in var.sensors.options : can(regex("^--[a-z_]+(=[^\"%$\\\\]+)?$", option))]), false)
    error_message = "sensors.options: each is --OPTION or --OPTION=VALUE, as in --filter=tcp port 443, without quotes, backslashes, % and $."
  }
}

variable "elasticsearch_key" {
  description = "Makes a secret for the API key of Elasticsearch that the pipeline may read. Its value is yours to add; it never stands in Terraform's state."
  type        = bool
  default     = false
}

variable "notification_channels" {
  description = "Channels of Cloud Monitoring that alerts go to."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for channel in var.notification_channels : can(regex("^projects/[^/]+/notificationChannels/[0-9]+$", channel))])
    error_message = "notification_channels: write projects/PROJECT/notificationChannels/NUMBER, as `gcloud beta monitoring channels list` has them."
  }
}

variable "budget" {
  description = "A budget of the project with alerts at half, nine tenths and all of it; none without it."
  type = object({
    billing_account = string
    monthly_amount  = number
    currency        = optional(string, "EUR")
  })
  default = null

  validation {
    condition     = var.budget == null || try(var.budget.monthly_amount > 0, false)
    error_message = "budget.monthly_amount must be more than 0."
  }
}
