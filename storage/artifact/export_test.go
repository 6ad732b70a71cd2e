package artifact

// RemoveOrphans is what sweep does.
var RemoveOrphans = removeOrphans
