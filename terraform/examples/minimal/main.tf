# Queue, table and accounts. Sensors and pipeline run wherever you like, as these accounts.

variable "project_id" {
  description = "Project that everything is made in."
  type        = string
}

provider "google" {
  project = var.project_id
}

provider "google-beta" {
  project = var.project_id
}

module "flowbeam" {
  source = "../.."

  project_id = var.project_id
  region     = "europe-west1"
}

output "flowbeam" {
  description = "What to start sensors and pipeline with, and what to open next."
  value       = module.flowbeam
}
