#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace g2sd {

/// Run a command with its arguments. Returns the exit status: 0 done or passed, 1 something failed, 2 see below.
///
/// Throws UserError for a mistake in what was asked, which is exit status 2.
int run_command(const std::vector<std::string>& words, std::ostream& out, std::ostream& err);

}  // namespace g2sd
