#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "bytes.hpp"

namespace g2sd {

/// What a file of a bundle must be.
struct FileRecord {
    std::string sha256;  ///< 64 hexadecimal digits
    std::int64_t bytes = 0;
};

/// The content of a file. Throws UserError, naming it.
Bytes read_file(const std::filesystem::path& path);

/// The content of a file, compared as it is read, so that what is used is what was verified. Throws IntegrityError.
Bytes read_checked(const std::filesystem::path& folder, const std::string& name, const FileRecord& record);

/// Everything in which a folder is not the one that was written: by relative path, why.
///
/// `beside` names files that may lie there without being listed; folders called __pycache__ always may.
std::map<std::string, std::string> problems_of(const std::filesystem::path& folder,
                                               const std::map<std::string, FileRecord>& files,
                                               const std::set<std::string>& beside);

}  // namespace g2sd
