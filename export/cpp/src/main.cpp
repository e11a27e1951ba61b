#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "commands.hpp"
#include "error.hpp"
#include "text.hpp"

int main(int count, char** words) {
    try {
        return g2sd::run_command({words + 1, words + count}, std::cout, std::cerr);
    } catch (const g2sd::UserError& error) {
        std::cerr << "g2sd-runner: error: " << g2sd::one_line(error.what()) << '\n';
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "g2sd-runner: unexpected: " << g2sd::one_line(error.what()) << '\n';
        return 3;
    }
}
