# Time windows, in UTC, judged by the time of the decision.
package kernelgate.rules

now := time.parse_rfc3339_ns(input.now)

in_window(b) if not b.windows

in_window(b) if {
	some w in b.windows
	matches_window(w)
}

matches_window(w) if {
	matches_dates(w)
	matches_hours(w)
}

# Dates are inclusive.
matches_dates(w) if {
	today := substring(input.now, 0, 10)
	object.get(w, "fromDate", today) <= today
	today <= object.get(w, "toDate", today)
}

clock := substring(input.now, 11, 5)

matches_hours(w) if {
	from := object.get(w, "from", "00:00")
	to := object.get(w, "to", "24:00")
	from < to
	from <= clock
	clock < to
	matches_weekday(w, now)
}

# A window over midnight belongs to the day on which it begins.
matches_hours(w) if {
	overnight(w)
	clock >= w.from
	matches_weekday(w, now)
}

matches_hours(w) if {
	overnight(w)
	clock < w.to
	matches_weekday(w, now - (((24 * 60) * 60) * 1000000000))
}

overnight(w) if w.from >= w.to

matches_weekday(w, _) if not w.weekdays

matches_weekday(w, ns) if substring(lower(time.weekday(ns)), 0, 3) in w.weekdays

window_note(b) := "" if not b.windows

window_note(b) := sprintf(" (it is %s, inside a window of this rule; try again after it)", [input.now]) if b.windows
