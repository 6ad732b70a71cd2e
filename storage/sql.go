package storage

import (
	"strconv"
	"strings"
)

// The statements are the same for both databases. Their parameters are
// numbered, and first stand in ascending order: PostgreSQL goes by the number,
// SQLite, to which $1 is a name, by the order.

// arguments are a statement's parameters while it is composed.
type arguments struct{ values []any }

// add is the parameter that stands for a value.
func (a *arguments) add(value any) string {
	a.values = append(a.values, value)
	return "$" + strconv.Itoa(len(a.values))
}

// listOf is the parameters that stand for texts, with commas between.
func listOf[T ~string](a *arguments, texts []T) string {
	parameters := make([]string, len(texts))
	for i, text := range texts {
		parameters[i] = a.add(string(text))
	}
	return strings.Join(parameters, ", ")
}

// upsert inserts a row, or changes the one with the same key; more sets columns
// besides those inserted.
func upsert(table, key, columns, more string) string {
	names := strings.Split(columns, ", ")
	set := make([]string, 0, len(names))
	for _, name := range names {
		if name != key {
			set = append(set, name+" = excluded."+name)
		}
	}
	return "INSERT INTO " + table + " (" + columns + ") VALUES " + tuples(1, len(names)) + " ON CONFLICT (" + key + ") DO UPDATE SET " + strings.Join(set, ", ") + more
}

// tuples is the parameters of so many rows, as they stand after VALUES.
func tuples(rows, columns int) string {
	var b strings.Builder
	for i := range rows * columns {
		switch {
		case i == 0:
			b.WriteString("($")
		case i%columns == 0:
			b.WriteString("), ($")
		default:
			b.WriteString(", $")
		}
		b.WriteString(strconv.Itoa(i + 1))
	}
	return b.String() + ")"
}
