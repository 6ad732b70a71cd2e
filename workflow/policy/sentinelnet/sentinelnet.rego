# The answer of the policy: these three rules and no other belong to this
# package, since the gateway refuses an answer that has more.
package kernelgate.sentinelnet

import data.kernelgate.rules

default allow := false

allow if count(rules.denials) == 0

# What denies comes first. With allow, all of them are warnings.
violations := array.concat([v | some v in rules.denials], [v | some v in rules.warnings])

onCanaryFailure := rules.on_canary_failure
