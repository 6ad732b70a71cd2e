# Budgets: what was applied at the target this month and what this upgrade
# costs, together, in one currency's minor units.
package kernelgate.rules

denials contains violation if {
	some b in config.budgets
	glob.match(b.target, null, input.manifest.target.name)
	cost := input.manifest.impact.cost
	cost.currency == b.currency
	spent := sum([s.minorUnits | some s in input.spent; s.currency == b.currency])
	spent + cost.minorUnits > b.limitMinorUnits
	violation := {
		"rule": sprintf("budget/%s", [b.name]),
		"message": sprintf(
			"target %s has spent %d of this month's %d %s (in minor units), and this upgrade costs %d; lower its cost, wait for the next month, or have the budget raised",
			[input.manifest.target.name, spent, b.limitMinorUnits, b.currency, cost.minorUnits],
		),
	}
}
