# What `cmake --install` puts in place, and the Debian package that `cpack` makes of it.
include(GNUInstallDirs)
find_package(Python3 COMPONENTS Interpreter)

install(TARGETS fovea RUNTIME)
# Where apps/cli/model_path.cpp looks for the model in the box: share/fovea beside bin.
install(DIRECTORY models/tiny DESTINATION ${CMAKE_INSTALL_DATADIR}/fovea/models)
install(FILES LICENSE THIRD_PARTY.md README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs)
install(FILES packaging/debian/copyright DESTINATION ${CMAKE_INSTALL_DOCDIR})
set(FOVEA_SYSTEMD_DIR lib/systemd/system CACHE STRING "Where the systemd unit goes, below the prefix")
install(FILES packaging/fovea.service DESTINATION ${FOVEA_SYSTEMD_DIR})

# Manual pages and completions come from the program's own --help, which a foreign processor's program cannot print here.
find_program(FOVEA_GZIP gzip)
if(Python3_Interpreter_FOUND AND FOVEA_GZIP AND NOT CMAKE_CROSSCOMPILING)
  set(manual ${CMAKE_BINARY_DIR}/manual)
  add_custom_command(
    OUTPUT ${manual}/stamp
    COMMAND ${CMAKE_COMMAND} -E rm -rf ${manual}
    COMMAND ${Python3_EXECUTABLE} -B ${PROJECT_SOURCE_DIR}/tools/make_manual.py --fovea $<TARGET_FILE:fovea> --out ${manual}
    COMMAND ${FOVEA_GZIP} -9nr ${manual}/man
    COMMAND ${CMAKE_COMMAND} -E copy ${PROJECT_SOURCE_DIR}/CHANGELOG.md ${manual}/changelog
    COMMAND ${FOVEA_GZIP} -9n ${manual}/changelog
    COMMAND ${CMAKE_COMMAND} -E touch ${manual}/stamp
    DEPENDS fovea ${PROJECT_SOURCE_DIR}/tools/make_manual.py ${PROJECT_SOURCE_DIR}/CHANGELOG.md
    VERBATIM)
  add_custom_target(fovea_manual ALL DEPENDS ${manual}/stamp)
  install(DIRECTORY ${manual}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES ${manual}/changelog.gz DESTINATION ${CMAKE_INSTALL_DOCDIR})
  install(FILES ${manual}/bash/fovea DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
  install(FILES ${manual}/zsh/_fovea DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
  install(FILES ${manual}/fish/fovea.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
else()
  message(STATUS "No Python 3 or no gzip, or cross compiling: no manual pages and completions")
endif()

set(CPACK_PACKAGE_NAME fovea)
set(CPACK_PACKAGE_VENDOR "The authors of Fovea")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "answers questions about pictures with the Moondream models")
set(CPACK_PACKAGE_DESCRIPTION "Fovea captions pictures, answers questions about them, and finds things in
them as boxes and points, with the Moondream vision-language models. It runs on
the machine that it is installed on; nothing leaves it. A small model that knows
drawings comes with it.")
# Whoever makes the package answers for it: as Debian's tools have it, or else the administrator of the machine.
if(DEFINED ENV{DEBEMAIL} AND DEFINED ENV{DEBFULLNAME})
  set(maintainer "$ENV{DEBFULLNAME} <$ENV{DEBEMAIL}>")
else()
  set(maintainer "Local administrator <root@localhost>")
endif()
set(FOVEA_PACKAGE_MAINTAINER "${maintainer}" CACHE STRING "Whom the Debian package names as its maintainer: NAME <ADDRESS>")
set(CPACK_PACKAGE_CONTACT "${FOVEA_PACKAGE_MAINTAINER}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_PACKAGE_SECTION graphics)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS ca-certificates) # fovea pull
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_GENERATOR DEB)
include(CPack)
