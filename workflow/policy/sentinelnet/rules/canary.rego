# What follows a failed canary. A target's first upgrade has nothing to go back to.
package kernelgate.rules

on_canary_failure := "escalate" if input.manifest.baseRevision == "none"

else := action if action := config.onCanaryFailure.targets[input.manifest.target.name]

else := config.onCanaryFailure["default"]
