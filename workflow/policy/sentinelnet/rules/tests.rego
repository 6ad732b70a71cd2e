# Required tests by component. Only an upgrade by quorum waits for tests; the
# other cases waive them.
package kernelgate.rules

denials contains violation if {
	input.case == "quorum"
	some r in config.tests
	selects(r, "types", {input.manifest.type}, null)
	some component in input.manifest.impact.components
	glob.match(r.component, null, component)
	some test in r.tests
	not test in input.manifest.preconditions.tests
	violation := {
		"rule": sprintf("tests/%s", [test]),
		"message": sprintf("component %q requires the test %q; propose the upgrade again with it in preconditions.tests, and let CI report its result", [component, test]),
	}
}
