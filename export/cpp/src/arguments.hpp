#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace g2sd {

/// A command line: COMMAND, what it works on, and options. `--name value` and `--name=value` are the same.
class Arguments {
  public:
    /// `with_value` and `flags` are the options there are. Throws UserError for any other, or one without its value.
    Arguments(const std::vector<std::string>& words, const std::set<std::string>& with_value,
              const std::set<std::string>& flags);

    const std::vector<std::string>& operands() const { return operands_; }
    bool has(const std::string& option) const { return options_.count(option) > 0; }

    /// The value of an option, or `otherwise`.
    std::string text(const std::string& option, const std::string& otherwise) const;
    /// Throws UserError where the value is no whole number of at least `least`.
    std::size_t number(const std::string& option, std::size_t otherwise, std::size_t least = 1) const;

  private:
    std::vector<std::string> operands_;
    std::map<std::string, std::string> options_;
};

}  // namespace g2sd
