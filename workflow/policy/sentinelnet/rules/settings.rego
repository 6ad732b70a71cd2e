# The settings in data.json. A mistake in them denies everything: a rule whose
# name is misspelt would otherwise allow what it is there to stop.
package kernelgate.rules

default settings := {}

settings := data.sentinelnet

# What the other rules read: the settings once they are known to be valid.
config := settings if {
	count(mistakes) == 0
} else := {"blocked": [], "budgets": [], "onCanaryFailure": {"default": "escalate"}, "tests": []}

denials contains {
	"rule": "settings",
	"message": sprintf("the settings of SentinelNet in data.json are not valid, so nothing is allowed: %s; the operator corrects them", [substring(mistake, 0, 600)]),
} if {
	some mistake in mistakes
}

# What a member of an entry must be is one of the forms below.
shapes := {
	"blocked": {
		"required": {"name", "why"},
		"members": {
			"name": "name", "why": "text", "effect": "effect", "types": "types", "cases": "cases",
			"targets": "texts", "paths": "texts", "components": "texts", "windows": "objects",
		},
	},
	"budgets": {
		"required": {"name", "target", "currency", "limitMinorUnits"},
		"members": {"name": "name", "target": "text", "currency": "currency", "limitMinorUnits": "amount"},
	},
	"tests": {
		"required": {"component", "tests"},
		"members": {"component": "text", "tests": "texts", "types": "types"},
	},
	"windows": {
		"required": set(),
		"members": {"weekdays": "weekdays", "from": "hour", "to": "hour", "fromDate": "date", "toDate": "date"},
	},
}

sections := {"blocked", "budgets", "onCanaryFailure", "tests"}

mistakes contains "\"sentinelnet\" is not an object" if not is_object(settings)

mistakes contains sprintf("%q is missing", [section]) if {
	is_object(settings)
	some section in sections
	not section in object.keys(settings)
}

mistakes contains sprintf("%q is unknown; known are %s", [section, concat(", ", sections)]) if {
	is_object(settings)
	some section in object.keys(settings) - sections
}

mistakes contains sprintf("%q is not a list", [section]) if {
	some section in sections - {"onCanaryFailure"}
	not is_array(settings[section])
}

# Every object that has a shape, with the place where it stands.
entries contains [section, sprintf("%s[%d]", [section, i]), entry] if {
	some section in sections - {"onCanaryFailure"}
	some i, entry in settings[section]
}

entries contains ["windows", sprintf("blocked[%d].windows[%d]", [i, j]), window] if {
	some i, j
	window := settings.blocked[i].windows[j]
}

mistakes contains sprintf("%s is not an object", [place]) if {
	some [_, place, entry] in entries
	not is_object(entry)
}

mistakes contains sprintf("%s lacks %q", [place, member]) if {
	some [section, place, entry] in entries
	is_object(entry)
	some member in shapes[section].required
	not member in object.keys(entry)
}

mistakes contains sprintf("%s has the unknown member %q", [place, member]) if {
	some [section, place, entry] in entries
	is_object(entry)
	some member in object.keys(entry) - object.keys(shapes[section].members)
}

mistakes contains sprintf("%s.%s is not valid", [place, member]) if {
	some [section, place, entry] in entries
	is_object(entry)
	some member, form in shapes[section].members
	member in object.keys(entry)
	not valid(form, entry[member])
}

mistakes contains sprintf("%s needs both \"from\" and \"to\", or another limit", [place]) if {
	some ["windows", place, window] in entries
	is_object(window)
	count(object.keys(window) & {"from", "to"}) == 1
}

mistakes contains sprintf("%s limits nothing", [place]) if {
	some ["windows", place, {}] in entries
}

mistakes contains "onCanaryFailure is not of the form {\"default\": ACTION, \"targets\": {TARGET: ACTION}}" if not valid_canary

valid_canary if {
	c := settings.onCanaryFailure
	is_object(c)
	object.keys(c) - {"default", "targets"} == set()
	c.default in actions
	targets := object.get(c, "targets", {})
	is_object(targets)
	every _, action in targets { action in actions }
}

actions := {"rollback", "escalate"}

patterns := {
	"name": `^[a-z0-9][a-z0-9-]{0,59}$`,
	"text": `^(.|\n){1,800}$`,
	"effect": `^(deny|warn)$`,
	"currency": `^[A-Z]{3}$`,
	"hour": `^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$`,
	"date": `^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$`,
}

choices := {
	"types": {"code", "manifest", "policy", "rollback"},
	"cases": {"quorum", "emergency", "ratification", "ratification-expired", "preapproved"},
	"weekdays": {"mon", "tue", "wed", "thu", "fri", "sat", "sun"},
}

valid(form, value) if {
	is_string(value)
	regex.match(patterns[form], value)
}

valid(form, value) if {
	nonempty_list(value)
	every v in value { v in choices[form] }
}

valid("texts", value) if {
	nonempty_list(value)
	every v in value { is_text(v) }
}

valid("objects", value) if nonempty_list(value)

valid("amount", value) if {
	is_number(value)
	value >= 0
	value == floor(value)
}

is_text(value) if {
	is_string(value)
	regex.match(patterns.text, value)
}

nonempty_list(value) if {
	is_array(value)
	count(value) > 0
}
