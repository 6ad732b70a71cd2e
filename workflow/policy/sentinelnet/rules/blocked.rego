# Blocked operations: an entry of config.blocked applies where each of its
# selectors matches; a selector that it does not have matches everything.
package kernelgate.rules

denials contains violation if {
	some b in blocking
	object.get(b, "effect", "deny") == "deny"
	violation := blocked_violation(b)
}

warnings contains violation if {
	some b in blocking
	b.effect == "warn"
	violation := blocked_violation(b)
}

blocked_violation(b) := {
	"rule": sprintf("blocked/%s", [b.name]),
	"message": sprintf("%s%s", [b.why, window_note(b)]),
}

blocking contains b if {
	some b in config.blocked
	selects(b, "types", {input.manifest.type}, null)
	selects(b, "cases", {input.case}, null)
	selects(b, "targets", {input.manifest.target.name}, null)
	selects(b, "paths", paths, ["/"])
	selects(b, "components", components, null)
	in_window(b)
}

paths contains input.manifest.target.path

paths contains input.manifest.target.manifestId

components contains c if some c in input.manifest.impact.components

selects(entry, selector, _, _) if not selector in object.keys(entry)

selects(entry, selector, values, delimiters) if {
	some pattern in entry[selector]
	some value in values
	glob.match(pattern, delimiters, value)
}

# A path that is not in its simplest form may mean another file than it says.
denials contains violation if {
	some b in config.blocked
	b.paths
	path := input.manifest.target.path
	regex.match(`(^|/)(\.{0,2})(/|$)`, path)
	violation := {
		"rule": "blocked/path-form",
		"message": sprintf("target.path %q is not in its simplest form; write it relative, without empty, \".\" and \"..\" parts, so that the rules about paths can judge it", [substring(path, 0, 300)]),
	}
}
