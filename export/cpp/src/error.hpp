#pragma once

#include <stdexcept>

namespace g2sd {

/// A mistake the user can fix: what came, what was wanted, what to change, in one line. Exit status 2.
class UserError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

/// A bundle whose files are not the ones that were written and tested. A self-test reports it as failed, exit status 1.
class IntegrityError : public UserError {
  public:
    using UserError::UserError;
};

}  // namespace g2sd
