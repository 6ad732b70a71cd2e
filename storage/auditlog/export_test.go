package auditlog

// AppendTo is how a payload's canonical form is looked for first; false where
// that takes the long way.
func (e *Event) AppendTo(b []byte) ([]byte, bool) { return e.appendTo(b) }
