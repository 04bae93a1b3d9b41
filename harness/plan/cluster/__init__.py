"""What is a described cluster like: chips, links, failures, power?"""
